"""What tests share: tiny models, fakes beside real parts, and one-line ways to ask and to draw."""
