/**
 * Refuses a Node that is too old, in one sentence, before anything is loaded that such a Node could not even read. That is why
 * this is plain ES5 in CommonJS: it runs on every Node there is. src/main.ts asks it first; the npm scripts run it before they
 * pass options that an old Node would reject as unknown.
 */
'use strict';

/** Older ones have an HTTP framing hole, and lack type stripping, node:sqlite or --disable-sigusr1. */
var floor = '24.18.1';

/** What to tell the person who started Node `found` (as in process.versions.node), or undefined when it is new enough. */
function nodeComplaint(found) {
  var have = found.split('.').map(Number);
  var need = floor.split('.').map(Number);
  for (var i = 0; i < need.length; i += 1) {
    if (have[i] > need[i]) return undefined;
    if (!(have[i] >= need[i])) {
      return (
        'Outrider needs Node ' +
        floor +
        ' or newer and this is Node ' +
        found +
        ', whose HTTP parser is unsafe: ' +
        '"npm ci" brings the right one, then start with "npm start" or "npm run -s outrider -- <command>".'
      );
    }
  }
  return undefined;
}

exports.nodeComplaint = nodeComplaint;

if (require.main === module) {
  var complaint = nodeComplaint(process.versions.node);
  if (complaint !== undefined) {
    console.error(complaint);
    process.exitCode = 1;
  }
}
