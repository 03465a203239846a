"""Choose how a network is carried out: forms of the model and cheaper functions of its neurons."""
