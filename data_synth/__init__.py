"""Problems -> search trees -> a judge's verdicts -> fused step labels -> a dataset. The files here are commands."""
