"""Every family of MMDetection's zoo, with random weights, asked over HTTP."""
