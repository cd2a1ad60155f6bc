"""Scaling experiments: a ladder of small runs (`ladder`, `runner`), what is measured of each
(`measures`, `speaking`), the law fitted through them (`law`, `results`, `report`), and the check that
a parametrisation transfers (`coordinates`). docs/scaling.md is the guide.
"""
