"""The drift report as a page that needs nothing else: templates, charts, and what they say."""
