"""From a finished confirmation to a claim: statistics, decision, card, report. Reads events; no Ray."""
