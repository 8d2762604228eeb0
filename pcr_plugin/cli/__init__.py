"""The command line `pcr`."""
