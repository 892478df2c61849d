/**
 * What etcd tells of its watches, in the bytes of an HTTP/2 connection: the only message with an eleventh field that a lock's
 * client gets. Each is in a frame of its own.
 */
export const events = () => {
  let rest: Buffer = Buffer.alloc(0)
  /** Takes what arrives, and returns what to pass on: whole frames, without those that carry events where these are dropped. */
  return (chunk: Buffer, areDropped: boolean): Buffer => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    const passed: Array<Buffer> = []
    while (rest.length >= frameHead) {
      const length = frameHead + rest.readUIntBE(0, 3)
      if (rest.length < length) break
      const frame = rest.subarray(0, length)
      if (!areDropped || !carriesEvents(frame)) passed.push(frame)
      rest = rest.subarray(length)
    }
    return Buffer.concat(passed)
  }
}

const frameHead = 9
const messageHead = 5
const data = 0

const carriesEvents = (frame: Buffer): boolean => {
  if (frame[3] !== data) return false
  let at = frameHead + messageHead
  const varint = () => {
    let value = 0
    for (let shift = 0; at < frame.length; shift += 7) {
      const byte = frame[at++]!
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) break
    }
    return value
  }
  while (at < frame.length) {
    const tag = varint()
    if (tag >> 3 === 11) return true
    const value = varint()
    if ((tag & 7) === 2) at += value
  }
  return false
}
