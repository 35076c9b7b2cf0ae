// Frees what uploads have left in the storage.
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { call, callAll, since } from './database.js'

// A random id; or the hash of a list, and an attempt to make its upload
const isFolder = (name) => /^([0-9a-f]{32}|[0-9a-f]{64}\.[0-9a-f-]{36})$/.test(name)
const uploadOf = (folder) => folder.split('.')[0]

// Frees what aborted, expired and deleted uploads have left, and partial ones that were concatenated a while ago:
// until then, a client that has lost the answer still finds them.
export async function reclaim(store, idle) {
  for (const { upload_id, partial } of await callAll('list_uploads', { path_prefix: 'partial/', status: 'complete', idle_for: idle })) {
    if (partial) await call('delete_upload', { upload_id, reclaim_complete: true })
  }
  await reclaimUnrecorded(store, idle)
  for (const { id, upload_id, provider_data } of await callAll('claim_reclaims', {})) {
    try {
      const folder = provider_data?.folder
      if (!isFolder(folder) || uploadOf(folder) !== upload_id) throw new Error('this storage makes no such folder')
      await fs.rm(store.folder(folder), { recursive: true, force: true, maxRetries: 3 })
      await call('finish_reclaim', { id })
    } catch (error) {
      await call('fail_reclaim', { id, error: error.message })
    }
  }
}

// Frees final files that have no session, as the process that made them has died, or was refused.  Only those with
// a mark: others are of sessions that were purged.
async function reclaimUnrecorded(store, idle) {
  const before = await since(idle)
  for (const folder of (await fs.readdir(store.marks).catch(() => [])).filter(isFolder)) {
    const mark = join(store.marks, folder)
    const { mtime } = await fs.stat(mark).catch(() => ({})) // another process may be faster
    if (!(mtime < before)) continue
    const session = await call('get_upload', { upload_id: uploadOf(folder) })
    if (session?.provider_data?.folder !== folder) await fs.rm(store.folder(folder), { recursive: true, force: true })
    await fs.rm(mark, { recursive: true, force: true })
  }
}
