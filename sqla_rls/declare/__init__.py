"""The declarations of models: policies, conditions, privileges, functions and views."""
