"""Who answers a query about a dialogue: models, servers, encoders, baselines."""
