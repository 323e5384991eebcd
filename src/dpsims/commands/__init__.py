"""Commands of the command line, besides those in `cli`, and what they share."""
