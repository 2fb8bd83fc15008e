"""Statistics over runs, and published figures and the papers' claims beside this project's results.

spread              means with confidence intervals or standard deviations
published_results   published figures with their sources
published_text      published figures in Markdown files
claims              the table of the papers' claims
"""
