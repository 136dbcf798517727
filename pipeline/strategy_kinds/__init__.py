"""The kinds of strategies a job can name: one section class a file, under the name of what it configures."""
