"""agent-sidecar: AI agents beside your editor that lose nothing."""

__version__ = "0.1.0"
