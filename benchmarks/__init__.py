"""AFTER's speed beside that of transformers' own tools: same weights, audio, machine and run.

    python -m benchmarks            # everything; --help says what else

scoring     a pool's scores, against the audio-classification pipeline
finetuning  an epoch of training, against the Trainer as its audio-classification example sets it up
tapt        steps of pre-training, against Wav2Vec2ForPreTraining as its pre-training example does

Each contestant works in a process of its own; the processes take turns, so that both meet the
machine in the same state. Before anything is timed their outputs have to be equal to 1e-4.

Beside it: `python -m benchmarks.story` labels recordings through a Label Studio, with an oracle
instead of people; `python -m benchmarks.webhooks` times the web service.
"""
