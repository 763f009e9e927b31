// Units: laying the score of a whole unit on weights, so that their sum gives it back. Not for others.
#pragma once

#include "pruning/criteria/criterion.h"

namespace espalier {

/// The scores of the units of a producing weight: `gates` rows each, unit u those of index u modulo the number of
/// units.
using JudgeUnits = std::function<std::vector<double>(const Parameter& weight, int64_t gates)>;

/// Throws, naming the criterion, unless every site has a member whose rows are judged, and no unit is a part of a row.
void check_whole_units(const Criterion& criterion, const std::vector<Site>& sites);

/// Saliencies from scores of units, as criterion.h describes under "whole units". Throws as
/// check_whole_units does.
Saliencies spread_over_units(const Criterion& criterion, const std::vector<Parameter>& parameters,
                             const CriterionInput& input, const JudgeUnits& judge);

/// Whether each weight exists, in row-major order.
std::vector<bool> existing_weights(const Parameter& parameter);

/// What the units of a weight put out: the output of an affine layer (ChannelAccount), such as Linear and Conv2d, or of
/// the BatchNorm that is called on it.
struct UnitOutputs {
  Parameter weight;
  Variable output;
  int channel_axis;
};
/// Calls `forward`, and returns what the network's affine layers put out meanwhile.
std::vector<UnitOutputs> observe_units(const Module& network, const std::function<void()>& forward);

/// Runs the batches of the input through the network in evaluation mode without history and calls
/// f(weight, activations) for each affine layer (ChannelAccount), such as Linear and Conv2d: max(0, z) as (N,C,H,W), z
/// their output or that of the BatchNorm that is called on it; H = W = 1 and N all leading axes for a Linear.
void for_each_activation(const Criterion& criterion, const CriterionInput& input,
                         const std::function<void(const Parameter& weight, const Tensor& activations)>& f);

}  // namespace espalier
