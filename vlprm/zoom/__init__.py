"""Zoom steps: limits, boxes, execution, labels, counterfactual crops."""
