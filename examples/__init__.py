"""Small real jobs that the README and the tests run."""
