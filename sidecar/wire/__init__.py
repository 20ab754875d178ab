"""The native wire: what is said (`methods`) and how it is framed (`frames`)."""
