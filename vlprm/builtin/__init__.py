"""The weights shipped with the package, and the code that builds small models of the same architecture."""
