"""The analyses that jneuro brings: one file each, with configuration, computation, text, tables and figures."""

__all__: list[str] = []
