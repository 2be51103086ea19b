"""How good a trained model is: classifiers on data sets, generated images, reconstructions."""
