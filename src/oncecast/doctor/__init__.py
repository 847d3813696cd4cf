"""The examination of a server from outside: `oncecast doctor` finds what stands between. Only the commands import it.

`observations.py` is what was seen, `probes.py` sees it, and `judges.py` says what it means: pure functions from
observations to `Finding`s (`findings.py`). `cures.py` knows the proxies by their headers and has the words of each.
`examination.py` runs it all in order. To add a check, add its name to `CHECKS`, a judge, its cures, and its probe to
the examination.
"""
