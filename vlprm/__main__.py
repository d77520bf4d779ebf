"""`python -m vlprm COMMAND`, for launchers of modules: `accelerate launch -m vlprm train`."""

from vlprm.runs.cli import main

if __name__ == "__main__":
    main()
