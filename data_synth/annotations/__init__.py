"""Labels of steps by a person: which steps are asked, and the journal of the answers."""
