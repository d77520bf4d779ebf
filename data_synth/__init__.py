"""Problems -> search trees -> judge verdicts -> fused step labels -> dataset. Each file here is a command."""
