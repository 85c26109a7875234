"""AFTER's speed beside that of other tools: same weights, audio, machine and run.

    python -m benchmarks            # everything; --help says what else

scoring     a pool's scores, against whatever else a user would take (encoders.py)
finetuning  an epoch of training, against the Trainer as its audio-classification example sets it up
tapt        steps of pre-training, against Wav2Vec2ForPreTraining as its pre-training example does
steps       what the learner does after every few labels, on pools of up to 1,000,000
memory      peak memory of embedding, fine-tuning, TAPT
layers      time by the highest hidden state that is pooled
competition accuracy, not speed: the probe, an adapter, and what a comparison keeps of them

Each contestant works in a process of its own; the processes take turns, so that all meet the
machine in the same state. Outputs have to be equal to 1e-4; what computes something else is called
inexact and its difference shown.

Beside it: `python -m benchmarks.story` labels recordings through a Label Studio, with an oracle
instead of people; `python -m benchmarks.webhooks` times the web service.
"""
