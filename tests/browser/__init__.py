"""The panel in a real JupyterLab, driven with a mouse and a keyboard."""
