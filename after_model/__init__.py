"""AFTER: active learning with task-adaptive pre-training for speech emotion recognition.

The method as a library (Li et al. 2024). It knows no corpus, no Label Studio and no HTTP.
"""
