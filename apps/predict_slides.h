// Label, probability, heatmap and report of slides.
#pragma once

#include <string>
#include <vector>

#include "apps/encoder.h"
#include "apps/slide_options.h"
#include "pathology/slide_prediction.h"

namespace serpentine {

struct PredictRequest {
  std::string run;     // over bags, or a folder of folds
  std::string slides;  // a slide, or a folder
  std::string out = "predictions";
  std::string heat = "auto";  // what it shows: attention, tile or auto (apps/bag_ensemble.h)
  std::string features;       // whose settings.json holds encoder and tiles; "": the run's own
  SlideArguments options;
  EncoderOptions encoder;
  EmbedJob job;
  PredictionFiles files;
  std::vector<std::string> given;  // options of tiles on the command line: they win
  bool input_given = false;        // the command line has --input-size
  bool again = false;              // also what is finished
};

/// Says what it does; returns the exit code. A slide that fails does not end the others.
int predict_slides(PredictRequest request);

}  // namespace serpentine
