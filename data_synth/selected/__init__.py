"""Selection of solutions to train on: what they are worth, which are chosen, how good the choice is."""
