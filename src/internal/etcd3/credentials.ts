import type { ChannelCredentials } from "@grpc/grpc-js"
import * as Grpc from "./packages.ts"
import type { Pem, Read } from "./secrets.ts"

/** What a channel speaks TLS with. gRPC's own credentials keep the certificates that they were made of. */
export class Credentials extends Grpc.ChannelCredentials {
  readonly #read: Read<Pem>
  #used: Pem = {}
  #failure: string | undefined

  constructor(read: Read<Pem>) {
    super()
    this.#read = read
  }

  /** What the last connection was made with. */
  get used(): Pem {
    return this.#used
  }

  /** Why the last read of the certificates failed. gRPC reports that only for a while. */
  get failure(): string | undefined {
    return this.#failure
  }

  override _isSecure(): boolean {
    return true
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other
  }

  async #readNow(): Promise<Pem> {
    try {
      this.#used = await this.#read()
      this.#failure = undefined
      return this.#used
    } catch (error) {
      this.#failure = (error as Error).message
      throw error
    }
  }

  override _createSecureConnector(
    ...args: Parameters<ChannelCredentials["_createSecureConnector"]>
  ): ReturnType<ChannelCredentials["_createSecureConnector"]> {
    let latest = Grpc.credentials.createInsecure()._createSecureConnector(...args)
    return {
      // This is called before each connection, and awaited.
      waitForReady: async () => {
        const { ca, cert, key } = await this.#readNow()
        // Null means the authorities that Node trusts by itself, or those that gRPC's variable names.
        latest = Grpc.credentials.createSsl(ca ?? null, key, cert)._createSecureConnector(...args)
      },
      connect: (socket) => latest.connect(socket),
      getCallCredentials: () => latest.getCallCredentials(),
      destroy: () => latest.destroy()
    }
  }
}
