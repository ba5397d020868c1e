"""A report: one page of HTML that needs nothing but a browser.

`of_runs` and `of_study` say what is on it, `figures` and `gallery` make its parts, `page` writes
it.
"""
