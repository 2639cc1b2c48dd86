// A colour for every class, and for every thing that has none. Apart from each other on photos, also for the colour-blind.

const COLOURS = [
  [255, 176, 0], [71, 153, 255], [240, 72, 130], [0, 190, 140], [160, 110, 255],
  [255, 111, 46], [0, 188, 222], [205, 90, 220], [150, 190, 40], [255, 130, 160],
];

/** [red, green, blue] in 0..255. classes: the detector's names; number: of a thing without a class. */
export function colourOf(label, classes, number) {
  const place = label === null ? -1 : classes.indexOf(label);
  return COLOURS[(place < 0 ? classes.length + number : place) % COLOURS.length];
}

/** As CSS writes it. */
export function css([red, green, blue], opacity = 1) {
  return `rgb(${red} ${green} ${blue} / ${opacity})`;
}
