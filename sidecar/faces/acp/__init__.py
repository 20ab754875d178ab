"""The Agent Client Protocol: the same conversations in Zed, JetBrains, Neovim and Emacs."""
