"""Two spaces on one page: findings, maps to point at, pictures and tables, in a single file that needs no network.

page.py    the page, put together
maps.py    the items of its maps
page.html, page.css, page.js   what a browser gets, with places to fill
"""

from geo_mf.report.page import check_colour, index_report

__all__ = ["check_colour", "index_report"]
