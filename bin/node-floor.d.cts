/** Types of node-floor.cjs, which must stay plain JavaScript. */
export declare const nodeComplaint: (found: string) => string | undefined;
