/** In milliseconds of CLOCK_MONOTONIC, which all processes of a machine share. */
export const now = (): number => Number(process.hrtime.bigint()) / 1e6
