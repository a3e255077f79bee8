"""The analyses that jneuro brings: one file each, with configuration, computation, text, tables and figures."""
