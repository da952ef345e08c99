"""The kinds as users write them: pydantic models with limits, defaults and units; the CRDs come from them."""
