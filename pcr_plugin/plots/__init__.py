"""Figures and a report from the logs of veRL runs: `pcr plot`.

logs -> runs -> tables -> figures -> report, each a folder that imports only what comes before it.
"""
