/** What the demo tells a newcomer to do: the same commands in the terminal and on the status page. */
export interface TourPlaces {
  readonly proxy: string;
  readonly frontDoor: string;
  readonly bundleFile: string;
  readonly eventsFile: string;
  readonly eventsFileIsDefault: boolean;
  /** The target's host name. */
  readonly target: string;
}

export interface TourStep {
  readonly what: string;
  readonly command: string;
}

export const tour = ({ proxy, frontDoor, bundleFile, eventsFile, eventsFileIsDefault, target }: TourPlaces): readonly TourStep[] => {
  const curl = `curl -sS --proxy http://${proxy} --cacert ${bundleFile}`;
  return [
    {
      what: 'A credential is injected: the reply shows an authorization header that curl never had.',
      command: `${curl} https://${target}/hello`,
    },
    { what: 'Policy refuses: the problem names the rule, and nothing was sent.', command: `${curl} https://${target}/admin/users` },
    {
      what: 'The evidence: who called what, under which grant and rule.',
      command: `npm run -s outrider -- events${eventsFileIsDefault ? '' : ` --file ${eventsFile}`}`,
    },
    { what: "The proxy's metrics.", command: `curl -sS http://${frontDoor}/proxy/metrics` },
  ];
};
