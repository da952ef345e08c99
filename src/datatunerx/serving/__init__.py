"""An OpenAI-shaped endpoint over one base and many adapters.

asgi = create_app(engine, catalogue, token)     # /v1/models, /v1/chat/completions, /v1/completions, ...
engine.start()                                  # one thread decodes for every client
catalogue.replace(models, refused)              # models come and go while it answers
"""
