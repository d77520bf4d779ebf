"""Config and statistics of `data_synth.report`."""
