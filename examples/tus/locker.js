// A locker for @tus/server.  A request works on an upload as long as it has the lease of its session; the epoch
// of the lease fences what a process writes that was frozen, while another one has gone on.
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { call } from './database.js'
import { isLive, refusal, request } from './store.js'

const duration = process.env.LEASE ?? '15 s' // how long an upload waits for a process that has died
const renewal = Number(process.env.LEASE_RENEWAL_MS ?? 1000)

class Lock {
  constructor(id) {
    this.id = id
  }

  // Waits for the lease.  Who has it learns from its next renewal that it is requested, and calls requestRelease.
  async lock(signal, requestRelease) {
    const context = request.getStore()
    if (context.req.method === 'POST') return // nobody else knows the upload yet
    const holder = randomUUID() // one for each request: those to the same process exclude each other, too
    for (const until = Date.now() + 5000; !signal.aborted && Date.now() < until; await sleep(100)) {
      const lease = await call('acquire_upload_lease', { upload_id: this.id, holder, duration })
      if (!isLive(lease)) return // what has ended needs no lock
      if (!lease.held) continue
      this.epoch = context.epoch = lease.epoch
      this.timer = setInterval(async () => {
        // A renewal that fails does no harm: what is written without the lease is not confirmed.
        const now = await call('renew_upload_lease', { upload_id: this.id, epoch: this.epoch, duration }).catch(() => ({}))
        if (now.requested || now.held === false) requestRelease()
      }, renewal)
      return
    }
    throw refusal(423, 'another request works on the upload')
  }

  // A lease that cannot be released runs out.
  async unlock() {
    clearInterval(this.timer)
    if (this.epoch) await call('release_upload_lease', { upload_id: this.id, epoch: this.epoch }).catch(() => {})
  }
}

export const locker = { newLock: (id) => new Lock(id) }
