"""The API layer: typed routes, problem+json errors and the OpenAPI document. Knows nothing of devices."""
