"""The source of a network: its own classes with what was chosen in the place of the choices.

    constructions   with what arguments each module was made, seen while the model is built
    user_files      the source of a module of the user's
    definitions     the user's classes and functions, copied with all that they need; what is installed is imported
    values          a value as the expression that gives it
    likeness        whether a constructor makes the same module
    modules         a module as the expression that makes it: a call of its class, or a class with a new constructor
    network         all of it as one file, which is run and compared before anybody gets it

A class of the user's keeps its forward pass, and the methods that this needs, as they were written. Its constructor is
kept where nothing in it was decided; else it is written anew, from what the module holds.
"""
