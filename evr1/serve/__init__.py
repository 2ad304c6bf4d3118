"""An OpenAI-compatible endpoint over the sampling side: `python -m evr1.serve`.

A request's way: `app` takes it, `schema` checks it, `media` fetches what it shows, `prompts` makes
a row of it, `prepare` the tokens, `worker` has it drawn, `answers` says what came out.
"""
