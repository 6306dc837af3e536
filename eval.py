"""Measure a checkpoint on labelled structures, or predict structures of your own.

    python eval.py --ckpt runs/RUN                                       the test structures of the run
    python eval.py --ckpt runs/RUN --data FILE --split all --output FOLDER
    python eval.py --ckpt runs/RUN --input molecules.smi --output predictions.csv
    python eval.py --ckpt runs/RUN --smiles CCO C1CC1
    python eval.py --ckpt runs/RUN --input frames.xyz --output predictions.xyz        energies with forces
    python eval.py --ckpt runs/ENSEMBLE                                  also --ckpt RUN RUN: the mean and its spread
    python eval.py --ckpt qm9 --smiles CCO                               twelve properties by the models that ship

Metrics stand beside two trivial baselines; --output FOLDER keeps them as metrics.json and predictions.csv.  Predictions
for --input go to standard output, or to --output, a .csv file or a folder that gets a predictions.csv; the header names
the unit.  SMILES stand in lines (.smi) or in a column smiles of a table (.csv, .tsv); their geometries are made, and
written beside the predictions (predictions.geometries.xyz).  A molecule of SMILES that cannot be used is named on
standard error and in the column error, the others are predicted, and the exit code is 2.  A model of atomisation
energies also gives total energies: plus the free atoms.  A model of energies whose gradient is a force can write both
as extended xyz, and its forces are measured where the data have some.  A model of force constants is measured on
crystals: errors of the blocks and of the phonons, beside zero and the mean of each pair and shell; predictions.csv then
holds those of each material.  Weights are the moving average where the run kept one.

Several models, or the folder of scripts/ensemble.py, predict their mean; the columns spread (standard deviation, in the
unit of the target) and uncertain say how far the members are apart, and whether that is further than for 95 % of the
validation structures.  Their metrics stand beside those of each member, with what the spread says of the error.

A set of models (``qm9``, which ships, or a folder of scripts/ship_models.py) predicts several properties, ``qm9/gap``
or ``--target gap,homo`` some of them.  Up to 8 molecules are printed as tables, with --output - as CSV like more of
them.  Spreads are calibrated: made the standard deviations of errors by a floor and a factor that the validation
structures of the training have given; ``uncertain`` names the properties whose spread is above that of 95 % of those
structures.  A file or folder ``qm9`` of your own comes first.

--atoms says which atoms matter, of the structures that the other options name and, of several models, for their mean
(where they have several targets, --target names one): contributions, gradients times inputs,
integrated gradients (see physics/attribution.py) and attention, as CSV, or in a new folder also as extended xyz and
pictures.

Structures outside of what the model has learned are named in warnings and in the column ``outside`` (see
data_tools/coverage/outside.py); a composition for which training gives no reference energy has no energy.  A mistake
in the input is one line and exit code 2.
"""

from __future__ import annotations

from experiment.startup import begin

if __name__ == "__main__":
    begin()

import sys

from configs.loading import ConfigError
from experiment.atom_program import which_atoms
from experiment.chosen_targets import with_targets
from experiment.closed_pipes import until_closed
from experiment.command_line import exit_code
from experiment.ensemble_folder import members_of
from experiment.ensemble_program import with_ensemble
from experiment.evaluation_options import changes_of, parse_arguments
from experiment.job_options import enter_job, use_for_evaluation
from experiment.measurement import measure, write_measurement
from experiment.model_set import find_set
from experiment.prediction import predict_input
from experiment.prediction_files import folder_of_metrics, place_of_predictions
from experiment.provenance import command_of
from experiment.run_log import set_up_log
from experiment.selection import select
from experiment.set_program import with_set
from experiment.trained import load_trained
from training.visible_devices import warn_of_unused


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of("eval.py", arguments)
    try:
        options = parse_arguments(arguments, __doc__)
        with enter_job(options) as job:  # its results are uploaded at the end
            use_for_evaluation(options, job)
            if not options.ckpt:
                raise ConfigError("expected --ckpt RUN, a run folder or a checkpoint; --help lists the options")
            paths = [options.ckpt, *options.members[1:]]
            models = find_set(paths)
            if models is not None:
                return with_set(options, models, command)
            runs, left_out = members_of(paths)
            if runs:
                return with_ensemble(options, runs, left_out, command)
            if options.atoms:
                return which_atoms(options, paths, command)
            if options.input or options.smiles:
                place = place_of_predictions(options.output, options.input)
                trained = with_targets(load_trained(options.ckpt, changes_of(options)), options.target)
                return predict_input(trained, options.input, options.smiles, place)
            folder = folder_of_metrics(options.output)
            trained = with_targets(load_trained(options.ckpt, changes_of(options)), options.target)
            set_up_log()
            warn_of_unused(trained.config.run.device_target)
            chosen = select(trained, options.data, options.split, options.keys)
            measured = measure(trained, chosen)
            if folder is not None:
                write_measurement(folder, trained, chosen, measured, command)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(until_closed(main))
