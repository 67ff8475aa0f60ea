"""Complete programs that use the library as its users do: they import its public names and nothing else."""
